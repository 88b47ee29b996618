// Package programs makes one executable out of several programs: the name that it is called by tells which one runs.
package programs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// Set holds the programs of an executable by name.
type Set map[string]func()

// Small is what tests of a client need: a server that answers, its storage, and a client of its own.
func Small() Set {
	return Set{
		"etcd":           func() { etcdmain.Main(os.Args) },
		"kube-apiserver": Command(apiserver.NewAPIServerCommand),
		"kubectl":        runKubectl,
	}
}

// Command is a program that ends with the exit code of a command of its own.
func Command(newCommand func() *cobra.Command) func() {
	return func() { os.Exit(cli.Run(newCommand())) }
}

// Run becomes the program that this process was called as.
func (set Set) Run() {
	run, known := set[filepath.Base(os.Args[0])]
	if !known {
		fmt.Fprintln(os.Stderr, "call this by a link that has one of these names:", slices.Sorted(maps.Keys(set)))
		os.Exit(2)
	}
	run()
}

// As k8s.io/kubernetes/cmd/kubectl does it: the verbosity counts already while the command is made.
func runKubectl() {
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
