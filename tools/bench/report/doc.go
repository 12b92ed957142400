// Package report renders a comparison as one HTML page that needs nothing
// else: styles and plots (SVG) are inline, there are no scripts.
//
// Plots show every round as a small mark and the median as a large one, so that
// the reader sees the spread and not only the verdict. Axes over several orders
// of magnitude are logarithmic; then there are dots and no bars, because the
// length of a bar on such an axis means nothing.
//
// The page states versions, the facts of the host that matter, and the command
// that repeats the comparison; it has no host names and no paths.
package report
