// Prometheus' parsers and its query engine. It scrapes an agent a number of times, as if a long time passed in between,
// evaluates alerts after each scrape and queries after the last, and prints what they give as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// The request, on standard input.
type request struct {
	URL string `json:"url"`
	// Labels that the scrape adds.
	Labels  map[string]string `json:"labels"`
	Scrapes int               `json:"scrapes"`
	// Between two scrapes: as it is, and as it is taken for.
	PauseMilliseconds int `json:"pause_milliseconds"`
	StepSeconds       int `json:"step_seconds"`
	// What comes from elsewhere, in the text format, added to each scrape.
	Others  string          `json:"others"`
	Queries []string        `json:"queries"`
	Rules   json.RawMessage `json:"rules"`
}

// The answer, on standard output.
type answer struct {
	Queries []result `json:"queries"`
	Alerts  []alert  `json:"alerts"`
}

type result struct {
	Query  string `json:"query"`
	Error  string `json:"error,omitempty"`
	Series int    `json:"series"`
}

type alert struct {
	Name string `json:"name"`
	// Its expression had a result after the last scrape.
	Pending bool `json:"pending"`
	// It has had a result for as long as the alert requires.
	Firing bool `json:"firing"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	flag.Parse()
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	parse := parser.NewParser(parser.Options{})
	groups, problems := rulefmt.Parse(asked.Rules, false, model.UTF8Validation, parse, nil)
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parse,
	})
	var rules []rule
	for _, group := range groups.Groups {
		for _, of := range group.Rules {
			rules = append(rules, rule{name: of.Alert, expression: of.Expr, waits: time.Duration(of.For)})
		}
	}
	memory := memory{}
	now := time.Unix(1_700_000_000, 0)
	query := func(text string) (promql.Vector, error) {
		query, err := engine.NewInstantQuery(context.Background(), memory.queryable(), nil, text, now)
		if err != nil {
			return nil, err
		}
		defer query.Close()
		value := query.Exec(context.Background())
		if value.Err != nil {
			return nil, value.Err
		}
		if len(value.Warnings) > 0 {
			return nil, errors.Join(value.Warnings.AsErrors()...)
		}
		vector, err := value.Vector()
		return append(promql.Vector(nil), vector...), err
	}
	for scrape := range asked.Scrapes {
		if scrape > 0 {
			time.Sleep(time.Duration(asked.PauseMilliseconds) * time.Millisecond)
			now = now.Add(time.Duration(asked.StepSeconds) * time.Second)
		}
		if err := memory.scrape(asked, now); err != nil {
			return err
		}
		for index := range rules {
			if err := rules[index].evaluate(query, now); err != nil {
				return fmt.Errorf("%s: %w", rules[index].name, err)
			}
		}
	}
	var answer answer
	for _, rule := range rules {
		answer.Alerts = append(answer.Alerts, rule.state(now))
	}
	for _, text := range asked.Queries {
		result := result{Query: text}
		if vector, err := query(text); err != nil {
			result.Error = err.Error()
		} else {
			for _, sample := range vector {
				if !math.IsNaN(sample.F) {
					result.Series++
				}
			}
		}
		answer.Queries = append(answer.Queries, result)
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// An alert, with the time since when each of its series has been there.
type rule struct {
	name       string
	expression string
	waits      time.Duration
	since      map[string]time.Time
}

func (rule *rule) evaluate(query func(string) (promql.Vector, error), now time.Time) error {
	vector, err := query(rule.expression)
	if err != nil {
		return err
	}
	since := map[string]time.Time{}
	for _, sample := range vector {
		of := sample.Metric.String()
		since[of] = now
		if earlier, known := rule.since[of]; known {
			since[of] = earlier
		}
	}
	rule.since = since
	return nil
}

func (rule *rule) state(now time.Time) alert {
	state := alert{Name: rule.name, Pending: len(rule.since) > 0}
	for _, since := range rule.since {
		state.Firing = state.Firing || now.Sub(since) >= rule.waits
	}
	return state
}

// The samples of each series, by its labels.
type memory map[string]*series

type series struct {
	labels  labels.Labels
	samples []sample
}

// Adds what the agent says now. An agent that does not answer is down, as Prometheus says it.
func (memory memory) scrape(asked request, now time.Time) error {
	text, kind, err := get(asked.URL)
	up := "up 1\n"
	if err != nil {
		up = "up 0\n"
	} else if err := memory.add(text, kind, asked.Labels, now); err != nil {
		return err
	}
	if err := memory.add([]byte(up), textFormat, asked.Labels, now); err != nil {
		return err
	}
	return memory.add([]byte(asked.Others), textFormat, nil, now)
}

const textFormat = "text/plain; version=0.0.4"

func get(url string) ([]byte, string, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, "", errors.New(response.Status)
	}
	text, err := io.ReadAll(response.Body)
	return text, response.Header.Get("Content-Type"), err
}

func (memory memory) add(text []byte, kind string, added map[string]string, now time.Time) error {
	parser, err := textparse.New(text, kind, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return err
	}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w in\n%s", err, strings.TrimSpace(string(text)))
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var of labels.Labels
		_, _, value := parser.Series()
		parser.Labels(&of)
		builder := labels.NewBuilder(of)
		for name, value := range added {
			// The agent's own labels count, as the PodMonitor has it (`honorLabels`).
			if of.Get(name) == "" {
				builder.Set(name, value)
			}
		}
		of = builder.Labels()
		known := memory[of.String()]
		if known == nil {
			known = &series{labels: of}
			memory[of.String()] = known
		}
		known.samples = append(known.samples, sample{time: now.UnixMilli(), value: value})
	}
}

// Finds series that match. The engine selects the samples of the time range that it needs.
func (memory memory) queryable() storage.Queryable {
	find := func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		var found seriesSet
		for _, series := range memory {
			if fits(series.labels, matchers) {
				found.series = append(found.series, series)
			}
		}
		return &found
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{SelectMockFunction: find}}
}

func fits(of labels.Labels, matchers []*labels.Matcher) bool {
	for _, matcher := range matchers {
		if !matcher.Matches(of.Get(matcher.Name)) {
			return false
		}
	}
	return true
}
