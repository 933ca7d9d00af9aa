"""Series from a PACS by DICOMweb, and objects back to it; there is no server in it."""

from heatmask.pacs.client import Pacs, PacsError, is_address
from heatmask.pacs.studies import PacsStudies, fetch_study

__all__ = ["Pacs", "PacsError", "PacsStudies", "fetch_study", "is_address"]
