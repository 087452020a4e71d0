package fsm

// This file is what the machine keeps: tables of immutable documents, and the indexes that find them.
//
// All of it is copy-on-write. A fork is O(1): it shares every product until one side changes it, and every tree node
// after that. A stored document or record is never changed; a change stores a new copy (see tx in apply.go).

import (
	"strings"

	"github.com/tidwall/btree"

	"github.com/lysnrai/fleet"
)

// state is everything that an entry can change. Whatever is not derived from another table is in the snapshot.
type state struct {
	gen         uint64 // products of another generation are shared with a fork: copy before writing
	index       uint64
	now         fleet.Time
	leaderSince fleet.Time
	txn         uint64 // numbers the commands since the start of the process, for copies on write; not part of a snapshot

	level      int    // the newest format that may be written (level.go)
	generation uint64 // counts the backups that were restored; epochs of a later one are above those of all before (raise.go)
	clusterID  string
	servers    summed[string, *Server]    // by server id, the removed ones too
	tokens     summed[string, *token]     // valid tokens by id
	hashes     btree.Map[string, string]  // SHA-256 of the secret → token id (derived)
	revoked    summed[string, revocation] // ids of tokens that were deleted or expired
	products   btree.Map[string, *product]
	unstored   *product // what enter makes for commands that are about no product; not part of a snapshot

	deadlines schedule // all that the reaper works off, but retention
	ended     schedule // terminal jobs by the time they ended

	sum uint64 // of the hashes of all products (derived; sum.go)

	tally *tally // not part of a snapshot
}

// product is one tenant's share of the state.
type product struct {
	gen       uint64
	id        string
	nextSeq   uint64 // submission order of the next job, from 1
	nextEvent uint64 // feed index of the next event, from 1
	purged    uint64 // the highest feed index that was ever purged

	jobs       btree.Map[string, *record]
	bySeq      btree.Map[uint64, string]                    // submission order → job id
	byKey      btree.Map[string, string]                    // idempotencyKey → job id
	stages     [len(fleet.Stages)]btree.Map[uint64, string] // stage → seq → job id
	parked     btree.Map[uint64, string]                    // parked jobs by seq
	children   *btree.BTreeG[edge]                          // parent → child
	dependents *btree.BTreeG[edge]                          // dep → dependent
	held       *btree.BTreeG[edge]                          // factory → job it holds
	queue      *btree.BTreeG[queued]                        // claimable jobs, by signature, then by key
	signatures btree.Map[string, *signature]                // requirement signatures that have queued jobs (derived)
	feed       btree.Map[uint64, *fleet.Event]              // events by feed index
	factories  btree.Map[string, *factory]                  // by factory id
	profiles   btree.Map[string, []*fleet.Profile]          // by name, versions 1, 2, …
	endings    summed[int64, *endings]                      // by minute of FSM time, the last two hours
	memory     *memory                                      // remembered outcomes of keyed calls (memory.go)

	sum   uint64 // of the hashes of jobs, factories and profiles (derived; sum.go)
	entry uint64 // the latest that touched it, see tx; not part of a snapshot
}

// record is a job with all that hangs on it.
type record struct {
	txn       uint64 // the command that made this copy; it alone may still write to it
	fresh     uint8  // the documents that it copied too: freshJob, freshLease, freshRun
	job       *fleet.Job
	lease     *fleet.Lease
	seq       uint64       // place in submission order
	content   [32]byte     // hash of what was submitted
	deps      []string     // job ids that job.Deps name, in their order, each once
	unmet     int          // how many of them are not met
	waiting   *waiting     // not claimable before
	key       sortKey      // its place in the queue, fixed when it was submitted
	totals    totals       // of its runs since the last requeue
	earlier   []*fleet.Run // runs, which never change again
	latest    *fleet.Run   // run; nil: there was none
	events    []*fleet.Event
	artifacts []*fleet.Artifact
	remarks   int64  // comments and artifacts, which are bounded
	group     *group // of a composite
	due       dues   // its deadlines in state.deadlines, so that they can be moved (derived from these)
}

// dues is where each kind of a job's deadlines stands in the index, by deadlineKind; zero: nowhere.
type dues [dueWall + 1]fleet.Time

// waiting keeps a queued or blocked job from being claimed until a Reap removes it.
type waiting struct {
	until fleet.Time
	cause string // submitted, backoff or released
}

// The causes of waiting.
const (
	causeSubmitted = "submitted"
	causeBackoff   = "backoff"
	causeReleased  = "released"
)

// totals is what a job has cost since its last requeue. held leaves out the time since heldSince of an open run.
type totals struct {
	usd    fleet.USD
	tokens int64
	held   fleet.Time // nanoseconds in which a closed run held a lease
}

// group is what a composite keeps of its children, so that a change of a child costs O(1).
type group struct {
	stages      [len(fleet.Stages)]int64 // direct children by stage
	claimed     bool                     // a child was ever claimed
	cancelled   bool                     // cancelled, and not requeued since
	descendants int64
	depth       int // composites above it
}

// sortKey orders the queue of one signature: tier, then key, then seq. Without aging and fair share key is 0.
type sortKey struct {
	tier uint8
	key  int64
	seq  uint64
}

func (a sortKey) less(b sortKey) bool {
	if a.tier != b.tier {
		return a.tier < b.tier
	}
	if a.key != b.key {
		return a.key < b.key
	}
	return a.seq < b.seq
}

// queued is a claimable job in line.
type queued struct {
	signature string
	key       sortKey
	job       string
}

// signature is what a job requires of a factory. Jobs that require the same stand in one line.
type signature struct {
	capabilities []string
	engine       string
	jobs         int64  // in line
	head         queued // the first of them
}

// edge leads from one id to another, in order of seq.
type edge struct {
	from string
	seq  uint64
	to   string
}

// factory is a factory with the token that may speak for it.
type factory struct {
	doc   *fleet.Factory
	owner string // token id; empty: open to any factory token of the product

	silent, forget fleet.Time // its deadlines in state.deadlines, zero: nowhere (derived from these)
}

// token is a token with the hash of its secret.
type token struct {
	doc  *fleet.Token
	hash string
}

// revocation is all that is kept of a token beside its id.
type revocation struct{}

// endings counts the jobs that ended in one minute.
type endings struct{ shipped, failed int64 }

// deadlineKind says what falls due. The order breaks ties in time.
type deadlineKind uint8

// The kinds of deadlines. Their numbers are in snapshots.
const (
	dueLease     deadlineKind = 1 // id: job
	dueWaiting   deadlineKind = 2 // id: job
	dueWall      deadlineKind = 3 // id: job
	dueFactory   deadlineKind = 4 // id: factory: silent
	dueForget    deadlineKind = 5 // id: factory: silent for 7 days, forgotten
	dueToken     deadlineKind = 6 // id: token
	dueRetention deadlineKind = 7 // id: job; at is when it ended
)

// deadline is one time at which the reaper has something to look at.
type deadline struct {
	at      fleet.Time
	kind    deadlineKind
	product string
	id      string
}

func lessDeadline(a, b deadline) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	if a.kind != b.kind {
		return a.kind < b.kind
	}
	if c := strings.Compare(a.product, b.product); c != 0 {
		return c < 0
	}
	return a.id < b.id
}

func lessEdge(a, b edge) bool {
	if c := strings.Compare(a.from, b.from); c != 0 {
		return c < 0
	}
	if a.seq != b.seq {
		return a.seq < b.seq
	}
	return a.to < b.to
}

func lessQueued(a, b queued) bool {
	if c := strings.Compare(a.signature, b.signature); c != 0 {
		return c < 0
	}
	return a.key.less(b.key)
}

// tree makes a B-tree for one writer; readers are kept out by the machine's lock, or read a fork.
func tree[T any](less func(a, b T) bool) *btree.BTreeG[T] {
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
}

func newState() *state {
	return &state{level: firstLevel, deadlines: newSchedule(recordDeadline), ended: newSchedule(recordEnded), tally: newTally()}
}

func newProduct(id string, gen uint64) *product {
	return &product{
		gen: gen, id: id, nextSeq: 1, nextEvent: 1,
		children: tree(lessEdge), dependents: tree(lessEdge), held: tree(lessEdge), queue: tree(lessQueued),
		memory: newMemory(),
	}
}

// fork is a second state that shares everything with this one until either is written to.
func (st *state) fork() *state {
	f := *st
	f.servers, f.tokens, f.hashes = *st.servers.Copy(), *st.tokens.Copy(), *st.hashes.Copy()
	f.revoked, f.products = *st.revoked.Copy(), *st.products.Copy()
	f.deadlines, f.ended = st.deadlines.Copy(), st.ended.Copy()
	st.gen++
	f.gen = st.gen
	st.gen++
	return &f
}

// writable is the product to write to, made if it is new.
func (st *state) writable(id string) *product {
	p, ok := st.products.Get(id)
	switch {
	case !ok:
		p = newProduct(id, st.gen)
	case p.gen != st.gen:
		p = p.fork(st.gen)
	default:
		return p
	}
	st.products.Set(id, p)
	return p
}

func (p *product) fork(gen uint64) *product {
	f := *p
	f.gen = gen
	f.jobs, f.bySeq, f.byKey, f.parked = *p.jobs.Copy(), *p.bySeq.Copy(), *p.byKey.Copy(), *p.parked.Copy()
	for i := range p.stages {
		f.stages[i] = *p.stages[i].Copy()
	}
	f.children, f.dependents, f.held, f.queue = p.children.Copy(), p.dependents.Copy(), p.held.Copy(), p.queue.Copy()
	f.signatures, f.feed, f.factories = *p.signatures.Copy(), *p.feed.Copy(), *p.factories.Copy()
	f.profiles, f.endings = *p.profiles.Copy(), *p.endings.Copy()
	f.memory = p.memory.fork()
	return &f
}
