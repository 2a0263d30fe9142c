// SPDX-License-Identifier: Apache-2.0

// Command pause is the sandbox of the tests' Pods: it holds their namespaces and does nothing. As a container it has a log.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	fmt.Println("paused")
	<-stop
}
