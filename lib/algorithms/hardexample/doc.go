// Package hardexample decides which results of a small model are too uncertain
// to be trusted, and so should go to a larger one.
//
// The rules are those of Sedna's hard_example_mining, with its gaps closed:
// 0·ln 0 is 0, one class is defined, and a result that is empty, not a number
// or no probability is hard, since a broken model must not look confident. The
// rules are pure: no clock, no I/O, chance only from a seed.
package hardexample
