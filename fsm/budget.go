package fsm

// This file is what a job may cost: usd, tokens, and the time in which its runs held a lease.

import (
	"math"

	"github.com/lysnrai/fleet"
)

// measure merges insights into a run, field by field, and moves the job's totals by the difference.
func (tx *tx) measure(r *record, run *fleet.Run, in *fleet.Insights) {
	to := &run.Insights
	usd, tokens := cost(to)
	set(&to.Model, in.Model)
	set(&to.TokensIn, in.TokensIn)
	set(&to.TokensOut, in.TokensOut)
	set(&to.TokensCached, in.TokensCached)
	set(&to.CostUSD, in.CostUSD)
	set(&to.Estimated, in.Estimated)
	set(&to.Turns, in.Turns)
	set(&to.ToolCalls, in.ToolCalls)
	set(&to.FilesChanged, in.FilesChanged)
	set(&to.LinesAdded, in.LinesAdded)
	set(&to.LinesDeleted, in.LinesDeleted)
	newUSD, newTokens := cost(to)
	r.totals.usd = fleet.USD(plus(int64(r.totals.usd-usd), int64(newUSD)))
	r.totals.tokens = plus(r.totals.tokens-tokens, newTokens)
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// cost is what counts of a run's insights.
func cost(in *fleet.Insights) (usd fleet.USD, tokens int64) {
	if in.CostUSD != nil {
		usd = *in.CostUSD
	}
	if in.TokensIn != nil {
		tokens = *in.TokensIn
	}
	if in.TokensOut != nil {
		tokens = plus(tokens, *in.TokensOut)
	}
	return usd, tokens
}

// plus adds amounts and stops at the end of what can be represented.
func plus(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// exceeded names the part of its budget that a held job has passed, empty for none.
func (r *record) exceeded(now fleet.Time) string {
	b := r.job.Budget
	if b == nil {
		return ""
	}
	switch end := r.wallEnd(); {
	case b.USD != nil && r.totals.usd > *b.USD:
		return "usd"
	case b.Tokens != nil && r.totals.tokens > *b.Tokens:
		return "tokens"
	case end != 0 && now > end:
		return "wall"
	}
	return ""
}

// wallEnd is until when the open run may hold its lease under budget.wall; zero if there is no such bound.
func (r *record) wallEnd() fleet.Time {
	run := r.run()
	if run == nil || r.job.Budget == nil || r.job.Budget.Wall == nil {
		return 0
	}
	return run.StartedAt.Add(*r.job.Budget.Wall) - r.totals.held
}

// exceed fails a held job that has passed its budget.
func (tx *tx) exceed(r *record, what string) {
	data := by(r).str("budget", what)
	reason := string(fleet.OutcomeBudgetExceeded)
	tx.endLease(r, fleet.LeaseReleased, fleet.OutcomeBudgetExceeded, reason)
	tx.raiseEpoch(r)
	tx.editJob(r).Reason = reason
	tx.setStage(r, fleet.Failed)
	tx.record(r, fleet.EventBudgetExceeded, data.end())
}
