// Package format reads samples out of text files that grow: csv with a header,
// txt with a sample a line, jsonl with a JSON value a line. A Scanner takes
// whole records only, refuses bad ones by line number and goes on, needs memory
// for one record whatever the file's size, and hands out the State with which
// another one goes on where it ended. Stats sums up what was read, sample by
// sample. Nothing here depends on the sizes of the pieces in which a file comes.
package format
