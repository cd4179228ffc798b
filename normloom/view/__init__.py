"""A local web page for looking at the rows of a store: tables, one row's history, two builds compared."""

from normloom.view.app import view_app
from normloom.view.serving import ViewServer

__all__ = ["ViewServer", "view_app"]
