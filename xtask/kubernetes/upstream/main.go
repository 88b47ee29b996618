// The network policy specs of Kubernetes' end-to-end suite, without the rest of that suite.
//
// In: the suite's flags, as -kubeconfig, -ginkgo.focus, -report-dir. Out: exit code 1 when a spec fails. With
// -print-image it prints the image that the specs' pods run, and ends.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/utils/image"

	_ "k8s.io/kubernetes/test/e2e/feature"
	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/network/netpol"
)

// The whole run, as ginkgo sees it.
type run struct{ failed bool }

func (r *run) Fail() { r.failed = true }

func main() {
	printImage := flag.Bool("print-image", false, "Print the image of the specs' pods")
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	if *printImage {
		fmt.Println(image.GetE2EImage(image.Agnhost))
		return
	}
	framework.AfterReadingAllFlags(&framework.TestContext)

	gomega.RegisterFailHandler(framework.Fail)
	suite, reporter := framework.CreateGinkgoConfig()
	all := &run{}
	if !ginkgo.RunSpecs(all, "Network policies of Kubernetes", suite, reporter) || all.failed {
		os.Exit(1)
	}
}
