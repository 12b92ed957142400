//go:build race

package watchfanout

const raceEnabled = true
