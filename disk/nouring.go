//go:build !giouring

package disk

import "errors"

func probeEngine(Options) (engine, reason string) {
	return EnginePwrite, "built without the tag giouring"
}

func newUringQueue(int) (Queue, error) {
	return nil, errors.New("built without the tag giouring")
}
