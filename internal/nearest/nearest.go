// Package nearest finds the word that somebody who mistyped one probably meant.
package nearest

// This file is the distance between words, and the nearest of some.

// Word is the candidate nearest to a word, empty if none is near: at most a third of its letters may differ, and two
// letters that changed places count as one difference.
func Word(word string, candidates []string) string {
	best, bestDistance := "", max(1, len([]rune(word))/3)+1
	for _, candidate := range candidates {
		if d := distance([]rune(word), []rune(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// Hint is Word as the end of an error message, empty if no candidate is near.
func Hint(word string, candidates []string) string {
	if w := Word(word, candidates); w != "" {
		return ` (did you mean "` + w + `"?)`
	}
	return ""
}

// distance is how many letters must be added, dropped, replaced or swapped with their neighbour to turn a into b.
func distance(a, b []rune) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	before, last, this := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i, x := range a {
		this[0] = i + 1
		for j, y := range b {
			cost := 1
			if x == y {
				cost = 0
			}
			this[j+1] = min(this[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && x == b[j-1] && a[i-1] == y {
				this[j+1] = min(this[j+1], before[j-1]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}
