package main

// This file asks before what can't be undone.

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// askable refuses what nobody has said yes to and nobody can be asked about.
func askable(c *cobra.Command, yes bool, what string) error {
	in, terminal := c.InOrStdin().(*os.File)
	if !yes && (!terminal || !term.IsTerminal(int(in.Fd()))) {
		return usagef("%s: this needs --yes where nobody can be asked", what)
	}
	return nil
}

// confirm asks on a terminal and needs --yes elsewhere.
func confirm(c *cobra.Command, yes bool, what string) error {
	if err := askable(c, yes, what); err != nil || yes {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s? [y/N] ", what)
	answer, _ := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("nothing was changed")
	}
	return nil
}

func yesFlag(c *cobra.Command, yes *bool) {
	c.Flags().BoolVar(yes, "yes", false, "don't ask")
}
