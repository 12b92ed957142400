// Package fold turns captured profiles and metrics into small tables.
//
// Terms: flat is what a function spent itself, cum what it and everything it
// called spent. A package's self is the sum of its functions' flat. Where the
// number of calls that the server answered is known, values are also given per
// call.
package fold
