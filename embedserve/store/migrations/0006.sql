-- Finds the chunks of one text: the first of them stands for all in the vector index. What it holds
-- of the others is found and removed when its rows are counted, at the next start.
CREATE INDEX chunks_by_text ON chunks (index_id, text_hash);
