// Package report prints what a test program observes: one JSON object a line on standard output, so that a test reads
// events in order and never parses prose.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

var lock sync.Mutex

// Event prints one event with its fields.
func Event(name string, fields map[string]any) {
	line := map[string]any{"event": name}
	for key, value := range fields {
		line[key] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		Fail(err)
	}
	lock.Lock()
	defer lock.Unlock()
	fmt.Println(string(text))
}

// Fail prints the error as the last event and leaves with code 1.
func Fail(err error) {
	text, _ := json.Marshal(map[string]any{"event": "error", "message": err.Error()})
	lock.Lock()
	fmt.Println(string(text))
	os.Exit(1)
}
