package main

// This file is help on what belongs to no single command.

import "github.com/spf13/cobra"

func newEnvironmentHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "environment",
		Short: "The variables that are read",
		Long: `A flag wins over its variable, a variable over the file, the file over the default.

Clients:
  FLEET_ADDR         URLs or host:port of nodes, with commas; tried in turn (http://127.0.0.1:8400)
  FLEET_TOKEN        the token
  FLEET_TOKEN_FILE   a file with the token
  FLEET_PRODUCT      the product; not needed with a token for one product
  FLEET_CA_FILE      certificates that a node's certificate is checked against

The file of clients is fleet/context.yaml in $XDG_CONFIG_HOME, or in ~/.config; "fleet-node dev" writes it while it runs.

Agents:
  FLEET_ROOT_TOKEN   the root token, if there is no --root-token-file
  FLEET_<FLAG>       any flag of the agent: FLEET_DATA_DIR is --data-dir

The file of an agent is given by --config; its keys are the names of the flags.`,
	}
}

func newExitCodesHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What an exit status means",
		Long: `Clients:
  0    done
  1    failed
  2    wrong usage
  3    nothing to claim (work --once)
  4    refused: no token, or not a token for this
  5    conflict: it is not any more as you thought
  130  interrupted

Agents:
  0    stopped by SIGTERM
  1    failed
  2    wrong flags, environment or configuration
  6    the disk, or what is on it, can't be trusted
  7    removed from the cluster`,
	}
}
