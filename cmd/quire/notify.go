package main

import (
	"net"
	"os"
)

// notifyInit tells the init system (systemd's NOTIFY_SOCKET) that the server
// is ready. Without such a socket it does nothing.
func notifyInit(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
