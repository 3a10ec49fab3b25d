"""What people read when a page failed, in plain words; the English text is the key."""

from __future__ import annotations

TITLE = "This page cannot be shown right now"
WRONG = "Something went wrong on our side, not on yours. Please try again in a moment."
LATE = "It took too long. Please try again in a moment."
UNSAVED = "What you sent may not have been saved: please look before you send it again."
REFRESH = "Refresh"
REPORT = "Report problem"
BACK = "Back to the page"
THANKS = "Thank you"
SENT = "Your report was sent. Its number is {number}."
