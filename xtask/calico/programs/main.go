// Calico's agent, and small users of Calico's own libraries. The name that it is called by selects the program.
//
// calico-store writes objects as calicoctl and Calico's API server do: it fills in defaults, checks, and stores custom resources.
// It reads a JSON array of objects from each line, and answers each line with a JSON array: "" for an object that was stored,
// else the error. At its start it makes the objects that every cluster of Calico's has.
//
// calico-veths and calico-veth-name name veths as Felix looks for them: see veth.go.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/sirupsen/logrus"

	"github.com/projectcalico/calico/calicoctl/calicoctl/resourcemgr"
	"github.com/projectcalico/calico/felix/daemon"
	"github.com/projectcalico/calico/libcalico-go/lib/clientv3"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "calico-felix":
		daemon.Run("/etc/calico/felix.cfg", "of podgate's tests", "", "")
	case "calico-store":
		if err := store(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "calico-veths":
		printNames(os.Args[1:])
	case "calico-veth-name":
		if err := nameVeth(); err != nil {
			// As CNI wants to hear it.
			json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": "0.4.0", "code": 100, "msg": err.Error()})
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "call this by a link to it, not by the name", name)
		os.Exit(2)
	}
}

func store() error {
	logrus.SetLevel(logrus.ErrorLevel)
	client, err := clientv3.NewFromEnv()
	if err != nil {
		return err
	}
	if err := client.EnsureInitialized(context.Background(), "of podgate's tests", "k8s"); err != nil {
		return err
	}
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var objects []json.RawMessage
		if err := json.Unmarshal(line, &objects); err != nil {
			return err
		}
		refusals := make([]string, len(objects))
		for place, object := range objects {
			if err := create(client, object); err != nil {
				refusals[place] = err.Error()
			}
		}
		if err := answers.Encode(refusals); err != nil {
			return err
		}
	}
}

func create(client clientv3.Interface, text []byte) error {
	var kind struct{ Kind string }
	if err := json.Unmarshal(text, &kind); err != nil {
		return err
	}
	object := empty(kind.Kind)
	if object == nil {
		return fmt.Errorf("unknown kind %q", kind.Kind)
	}
	if err := json.Unmarshal(text, object); err != nil {
		return err
	}
	_, err := resourcemgr.GetResourceManager(object).Create(context.Background(), client, object)
	return err
}

func empty(kind string) resourcemgr.ResourceObject {
	switch kind {
	case v3.KindGlobalNetworkPolicy:
		return v3.NewGlobalNetworkPolicy()
	case v3.KindGlobalNetworkSet:
		return v3.NewGlobalNetworkSet()
	case v3.KindNetworkPolicy:
		return v3.NewNetworkPolicy()
	case v3.KindNetworkSet:
		return v3.NewNetworkSet()
	case v3.KindTier:
		return v3.NewTier()
	default:
		return nil
	}
}
