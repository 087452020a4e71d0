package client_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/rpc/client"
)

// Under an IdempotencyKey a submit can be repeated: it finds the job, or replaces what was asked for while nobody has it.
func ExampleClient_Submit() {
	url, stop := exampleNode()
	defer stop()
	c, err := client.New(client.Config{Addresses: []string{url}, Token: rootToken, Product: "docs"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for _, body := range []string{"Fix the test", "Fix the test", "Fix both tests"} {
		result, err := c.Submit(ctx, fleet.Submission{BodyMd: body, IdempotencyKey: "fix-42"})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(result.Outcome, result.Job.Stage)
	}

	// What the cluster refuses has a code for programs and words for people.
	_, err = c.Submit(ctx, fleet.Submission{BodyMd: "Deploy it", Priority: "urgent"})
	var refused *fleet.Error
	if errors.Is(err, fleet.Invalid) && errors.As(err, &refused) {
		fmt.Println(refused.Fields[0].Field, "is", refused.Code)
	}
	// Output:
	// created queued
	// existing queued
	// superseded queued
	// priority is invalid
}
