/**
 * The compressions of @platformatic/kafka, in a file of their own: their compiled code is loaded only where it is
 * needed. See client-library.ts.
 */
export { compressionsAlgorithms } from '@platformatic/kafka'
