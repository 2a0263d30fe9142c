// SPDX-License-Identifier: Apache-2.0

// Command pause is the sandbox of the tests' Pods: it holds their namespaces and does nothing.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
