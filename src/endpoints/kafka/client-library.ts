/**
 * What client.ts takes of @platformatic/kafka: its connections with TLS and login, and the requests in the versions that are spoken. The package whole takes
 * 0.4 s of CPU to load; `npm run build` makes a file of its own of these (scripts/lean.js).
 */
export {
  apiVersionsV2, Connection, createAPI, Writer,
  metadataV5, metadataV6, metadataV7, metadataV8, metadataV9, metadataV10, metadataV11, metadataV12,
  listOffsetsV2, listOffsetsV3, listOffsetsV4, listOffsetsV5, listOffsetsV6, listOffsetsV7,
  findCoordinatorV1, findCoordinatorV2, findCoordinatorV3, findCoordinatorV4,
  joinGroupV3, joinGroupV4, joinGroupV5, joinGroupV6, joinGroupV7, joinGroupV8, joinGroupV9,
  syncGroupV2, syncGroupV3, syncGroupV4, syncGroupV5,
  heartbeatV2, heartbeatV3, heartbeatV4,
  leaveGroupV2, leaveGroupV3, leaveGroupV4, leaveGroupV5,
  offsetCommitV5, offsetCommitV6, offsetCommitV7, offsetCommitV8, offsetCommitV9,
  offsetFetchV5, offsetFetchV6, offsetFetchV7, offsetFetchV8, offsetFetchV9,
  initProducerIdV1, initProducerIdV2, initProducerIdV3, initProducerIdV4,
} from '@platformatic/kafka'
