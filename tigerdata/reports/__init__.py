"""Report texts become structured facts: normalise, split, find terms and sizes, link nodules, judge assertion."""
