// Package mutants plants bugs in the product, one at a time, and sees that a test finds each.
//
// A mutant is a file in testdata: what is broken and which promise that breaks, the one test that must find it, and the text
// that becomes another. The test runs against a build in which only that text differs (go test -overlay); the tree is never touched.
package mutants
