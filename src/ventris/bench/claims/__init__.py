"""The engine's own promises, measured: ``ventris bench --claims``."""

from ventris.bench.claims.claim import Claim, ClaimsReport
from ventris.bench.claims.run import measure_claims, run_claims, write_claims

__all__ = ["Claim", "ClaimsReport", "measure_claims", "run_claims", "write_claims"]
