// Package jobfile reads jobs that people write as files: Markdown with a head, or YAML with a body (docs/jobfiles.md).
//
// A file says everything that a submission may say, under the submission's own names or their short forms. The bytes
// after the head of a Markdown file are the job's body, untouched. All that is wrong with a file is said at once, each
// with its place, as compilers do; Parse never stops at the first problem.
//
// Start with parse.go. How a file comes apart into head and body is split.go, the fields are fields.go, how YAML
// becomes free-form JSON is manifest.go; format.go writes a file.
package jobfile
