"""Evidence about deletions: verification, the search for what was left behind, certificates, checks of the ledger."""
