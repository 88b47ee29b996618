package main

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// Series one after another, as the engine reads them.
type seriesSet struct {
	series []*series
	next   int
}

func (set *seriesSet) Next() bool {
	set.next++
	return set.next <= len(set.series)
}

func (set *seriesSet) At() storage.Series {
	of := set.series[set.next-1]
	samples := make([]chunks.Sample, 0, len(of.samples))
	for _, sample := range of.samples {
		samples = append(samples, sample)
	}
	return storage.NewListSeries(of.labels, samples)
}

func (set *seriesSet) Err() error                        { return nil }
func (set *seriesSet) Warnings() annotations.Annotations { return nil }

// One number. The agent has no others.
type sample struct {
	time  int64
	value float64
}

func (sample sample) T() int64                      { return sample.time }
func (sample sample) ST() int64                     { return 0 }
func (sample sample) F() float64                    { return sample.value }
func (sample sample) H() *histogram.Histogram       { return nil }
func (sample sample) FH() *histogram.FloatHistogram { return nil }
func (sample sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (sample sample) Copy() chunks.Sample           { return sample }
