"""Evidence about deletions: the ledger, the cold oracle, the search for what was left behind, the certificate."""
