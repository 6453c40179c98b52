"""Tests a deployment of Chainlit from the outside, the way a browser uses it: `chainlit-proxy doctor URL`.

Read `examination.py` first: it has the order of the checks. A check asks through a `Browser` (`browser.py`),
or through a `Tab` of it (`tab.py`), whose connection is an `Engine` (`engine.py`). It returns a `Verdict`;
what that means and where to read on stands in `topics.py`. `report.py` shows all of it.

It knows nothing of this proxy: what stands in front of the app, and whether there is anything, is what it is
to find out. Nothing is stored, here or there: each session of its own is cleared in the end.
"""
