-- What a name of a whole graph stands for, and what is inside it.

UPDATE _column SET meaning = 'The kernel as people write it: C++ names are demangled. Where graphs are not looked into, a whole CUDA graph is one row, called by the number that CUPTI gave it in its process; graphs of one number in several processes of a run, or one after the other, are that row together. Memsets are one row, [CUDA memset]. After 16,384 names of a run on a device, all others are one row, (other kernels).'
WHERE view = 'kernels' AND "column" = 'name';

UPDATE _column SET meaning = 'How many copies. Those inside a CUDA graph that is one row of kernels are part of its time, and not counted here.'
WHERE view = 'copies' AND "column" = 'count';
