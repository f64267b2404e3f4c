"""What a part's author needs to test it: toy targets, exact enumeration, and checks of the contracts."""

from ventris.testing.checks import ContractBroken, check_drafter, check_guide, check_verifier, law_error
from ventris.testing.toy import ToyTarget

__all__ = ["ContractBroken", "ToyTarget", "check_drafter", "check_guide", "check_verifier", "law_error"]
