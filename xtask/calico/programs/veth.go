package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/projectcalico/calico/libcalico-go/lib/backend/k8s/conversion"
)

// printNames is calico-veths: the name of the host's end of each pod's veth, for pods that are given as NAMESPACE/NAME.
func printNames(pods []string) {
	for _, pod := range pods {
		namespace, name, _ := strings.Cut(pod, "/")
		fmt.Println(conversion.NewConverter().VethNameForWorkload(namespace, name))
	}
}

// nameVeth is calico-veth-name, a CNI plugin for the end of a list: it gives the host's end of the veth that the plugins before it
// have made the name by which Felix finds it, as the plugins of EKS and GKE do. It leaves addresses and routes alone.
func nameVeth() error {
	var config struct {
		CNIVersion string         `json:"cniVersion"`
		PrevResult map[string]any `json:"prevResult"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&config); err != nil {
		return err
	}
	switch os.Getenv("CNI_COMMAND") {
	case "ADD":
	case "VERSION":
		return json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": config.CNIVersion, "supportedVersions": []string{"0.4.0"}})
	default:
		return nil
	}
	arguments := map[string]string{}
	for _, argument := range strings.Split(os.Getenv("CNI_ARGS"), ";") {
		key, value, _ := strings.Cut(argument, "=")
		arguments[key] = value
	}
	name := conversion.NewConverter().VethNameForWorkload(arguments["K8S_POD_NAMESPACE"], arguments["K8S_POD_NAME"])
	interfaces, _ := config.PrevResult["interfaces"].([]any)
	for _, entry := range interfaces {
		entry, _ := entry.(map[string]any)
		before, _ := entry["name"].(string)
		sandbox, _ := entry["sandbox"].(string)
		if sandbox != "" || !strings.HasPrefix(before, "veth") {
			continue
		}
		if output, err := exec.Command("ip", "link", "set", before, "name", name).CombinedOutput(); err != nil {
			return fmt.Errorf("ip link set %s name %s: %w: %s", before, name, err, output)
		}
		entry["name"] = name
		return json.NewEncoder(os.Stdout).Encode(config.PrevResult)
	}
	return errors.New("no plugin before this one has made a veth")
}
