// Package mainjob is the job that a development cluster ships first: checking the Go packages of a module, each after
// those it imports.
//
// Load asks the go command for the packages, Plan.Submissions makes a job of each, and Verify tells from what the
// cluster kept whether every one of them was done exactly once.
package mainjob
