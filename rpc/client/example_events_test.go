package client_test

import (
	"context"
	"fmt"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// The feed goes on over reconnects and from node to node. Who remembers the last Index goes on there another day.
func ExampleClient_Events() {
	url, stop := exampleNode()
	defer stop()
	c, err := client.New(client.Config{Addresses: []string{url}, Token: rootToken, Product: "docs"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	result, err := c.Submit(ctx, fleet.Submission{BodyMd: "Fix it"})
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { _, _ = c.Cancel(ctx, result.Job.ID, "not needed any more") }()

	for event, err := range c.Events(ctx, 0) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(event.Seq, event.Type)
		if event.Type == fleet.EventCancelled {
			break
		}
	}
	// Output:
	// 1 submitted
	// 2 cancelled
}
