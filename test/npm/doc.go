// Package npm runs the npm client etcd3, a second implementation of the API's client side, against a server. The script
// and its pinned dependencies are in the folder client; they are installed into a temporary folder. Where there is no
// node, no npm or no way to npm's packages, the test skips itself and says so.
package npm
