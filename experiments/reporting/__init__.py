"""From result rows to tables, sentences and pages; the launchers `tables` and `report` use it."""
