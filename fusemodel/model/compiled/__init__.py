"""Many mappings at once: expressions built once in symbols, computed by one compiled kernel for columns of sizes."""

from fusemodel.model.compiled.batch import OBJECTIVES, Batch, CompiledMapping, blocks_of, compile_mapping

__all__ = ["OBJECTIVES", "Batch", "CompiledMapping", "blocks_of", "compile_mapping"]
