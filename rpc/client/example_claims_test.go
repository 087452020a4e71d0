package client_test

import (
	"context"
	"fmt"
	"time"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// A factory is a loop. Each job's lease is renewed until it is reported on; its context ends if it is lost.
func ExampleClient_Claims() {
	url, stop := exampleNode()
	defer stop()
	c, err := client.New(client.Config{Addresses: []string{url}, Token: rootToken, Product: "docs"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, body := range []string{"first", "second"} {
		if _, err := c.Submit(ctx, fleet.Submission{BodyMd: body, Capabilities: []string{"go"}}); err != nil {
			fmt.Println(err)
			return
		}
	}

	factory := fleet.HeartbeatRequest{FactoryID: "f1", Capabilities: &fleet.Strings{"go"}}
	for held, err := range c.Claims(ctx, client.ClaimOptions{Factory: factory, Lease: 30 * time.Second}) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		// Work goes here; it stops when held.Context() ends.
		job, err := held.Report(held.Context(), fleet.Report{Stage: fleet.Shipped})
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(job.BodyMd, "is", job.Stage)
		if job.BodyMd == "second" {
			break
		}
	}
	// Output:
	// first is shipped
	// second is shipped
}
