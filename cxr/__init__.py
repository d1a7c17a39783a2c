"""What both tasks share: from a radiograph file to pixels, from a run to records, scores and pictures."""
