package nearest

// This file tests what counts as near.

import "testing"

func TestWord(t *testing.T) {
	stages := []string{"queued", "blocked", "shipped", "failed", "dead_letter"}
	for _, c := range []struct{ word, want string }{
		{"dead_leter", "dead_letter"},
		{"deadletter", "dead_letter"},
		{"quedu", ""},
		{"queude", "queued"},
		{"shiped", "shipped"},
		{"x", ""},
		{"", ""},
		{"failed", "failed"},
		{"something", ""},
	} {
		if got := Word(c.word, stages); got != c.want {
			t.Errorf("Word(%q): got %q, want %q", c.word, got, c.want)
		}
	}
	if got, want := Hint("hihg", []string{"low", "high"}), ` (did you mean "high"?)`; got != want {
		t.Errorf("Hint: got %q, want %q", got, want)
	}
}
