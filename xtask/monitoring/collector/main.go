// OpenTelemetry's own receiver of OTLP. It writes what it gets into a file, a line of JSON for each request.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

// A line of the file: one of the two signals in OTLP's JSON, and a header of the request that brought it.
type line struct {
	Authorization []string        `json:"authorization"`
	Logs          json.RawMessage `json:"logs,omitempty"`
	Metrics       json.RawMessage `json:"metrics,omitempty"`
}

// Where both signals go.
type sink struct {
	file *os.File
	lock sync.Mutex
}

func (*sink) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (sink *sink) ConsumeLogs(of context.Context, logs plog.Logs) error {
	text, err := (&plog.JSONMarshaler{}).MarshalLogs(logs)
	return sink.write(of, line{Logs: text}, err)
}

func (sink *sink) ConsumeMetrics(of context.Context, metrics pmetric.Metrics) error {
	text, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(metrics)
	return sink.write(of, line{Metrics: text}, err)
}

// err: why there is no line.
func (sink *sink) write(of context.Context, line line, err error) error {
	if err != nil {
		return err
	}
	line.Authorization = client.FromContext(of).Metadata.Get("authorization")
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	sink.lock.Lock()
	defer sink.lock.Unlock()
	_, err = sink.file.Write(append(text, '\n'))
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:4318", "address and port of OTLP over HTTP")
	path := flag.String("out", "", "the file")
	certificate := flag.String("certificate", "", "certificate of the server, for TLS")
	key := flag.String("key", "", "its key")
	flag.Parse()
	file, err := os.OpenFile(*path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	output := &sink{file: file}

	factory := otlpreceiver.NewFactory()
	http := map[string]any{"endpoint": *listen, "include_metadata": true}
	if *certificate != "" {
		http["tls"] = map[string]any{"cert_file": *certificate, "key_file": *key}
	}
	config := factory.CreateDefaultConfig()
	given := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{"http": http}})
	if err := given.Unmarshal(config); err != nil {
		return err
	}
	settings := receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
	}
	// Both are one server: it belongs to its configuration.
	ofLogs, err := factory.CreateLogs(context.Background(), settings, config, output)
	if err != nil {
		return err
	}
	ofMetrics, err := factory.CreateMetrics(context.Background(), settings, config, output)
	if err != nil {
		return err
	}
	for _, started := range []component.Component{ofLogs, ofMetrics} {
		if err := started.Start(context.Background(), componenttest.NewNopHost()); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	return ofLogs.Shutdown(context.Background())
}
