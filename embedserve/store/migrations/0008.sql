-- On which lines of its document's text a chunk begins and ends; unknown until it is read again.
ALTER TABLE chunks ADD COLUMN line_start INTEGER;
ALTER TABLE chunks ADD COLUMN line_end INTEGER;
