"""Names of places inside a model: `L14.E114` is expert 114 of layer 14. Imports only errors."""

from moeprobe.sites.grammar import parse_sites
from moeprobe.sites.layout import LayerSites, Layout
from moeprobe.sites.site import INDEXED, KINDS, Site, expert_site, parse_expert, parse_site
from moeprobe.sites.siteset import SiteSet

__all__ = [
    "INDEXED",
    "KINDS",
    "LayerSites",
    "Layout",
    "Site",
    "SiteSet",
    "expert_site",
    "parse_expert",
    "parse_site",
    "parse_sites",
]
