// A whole cluster in one executable.
package main

import (
	"context"

	"github.com/spf13/cobra"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	"podgate/kubernetes/programs"
)

func main() {
	set := programs.Small()
	set["kube-controller-manager"] = programs.Command(manager.NewControllerManagerCommand)
	set["kube-scheduler"] = programs.Command(func() *cobra.Command { return scheduler.NewSchedulerCommand() })
	set["kube-proxy"] = programs.Command(proxy.NewProxyCommand)
	set["kubelet"] = programs.Command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) })
	set.Run()
}
