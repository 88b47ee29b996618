// What tests against a real API server need, in one executable.
package main

import "podgate/kubernetes/programs"

func main() {
	programs.Small().Run()
}
