/**
 * What client.ts takes of @platformatic/kafka to compress: the compiled code that does it is read only where it is
 * asked for. See client-library.ts.
 */
export { compressionsAlgorithms } from '@platformatic/kafka'
