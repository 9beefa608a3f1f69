/** Which room may import which: the table of the design. A rule's comment is what its violation says. */
const npm = 'node_modules/'
const room = (name) => `^src/${name}/`
/** `from` may import nothing of src but itself and `rooms`, and of node_modules only `packages`. */
function only(name, rooms, comment, packages = []) {
  const allowed = [name, ...rooms].map((each) => (each.includes('.') ? `^src/${each}$` : room(each)))
  return [
    {
      name: `${name}-imports`,
      severity: 'error',
      comment,
      from: { path: room(name) },
      to: { path: '^src/', pathNot: allowed },
    },
    {
      name: `${name}-packages`,
      severity: 'error',
      comment: `${name} uses no package${packages.length === 0 ? '' : ` but ${packages.join(', ')}`}.`,
      from: { path: room(name) },
      to: { path: npm, pathNot: packages.map((each) => `${npm}${each}/`) },
    },
  ]
}

module.exports = {
  forbidden: [
    ...only('kit', [], 'kit knows nothing of manifold: it imports node only.'),
    ...only('core', ['kit'], 'core imports kit only.'),
    ...only(
      'options',
      ['kit', 'core/errors.ts', 'core/contract.ts'],
      'options imports kit and core/errors (and types of core/contract).',
    ),
    {
      name: 'options-contract',
      severity: 'error',
      comment: 'Of core/contract options may import types only.',
      from: { path: room('options') },
      to: { path: '^src/core/contract\\.ts$', dependencyTypesNot: ['type-only'] },
    },
    ...only('codec', ['core', 'kit'], 'codec imports core and kit.'),
    ...only('spool', ['core', 'kit'], 'spool imports core and kit.'),
    ...only('state', ['core', 'kit'], 'state imports core and kit.'),
    ...only(
      'plan',
      ['core', 'options', 'codec', 'kit', 'spool', 'state', 'endpoints'],
      'plan puts the rooms together, without the command line.',
    ),
    {
      name: 'plan-importers',
      severity: 'error',
      comment: 'Only index.ts and cli run a plan.',
      from: { path: '^src/', pathNot: [room('(plan|cli)'), '^src/index\\.ts$'] },
      to: { path: room('plan') },
    },
    ...only('aws', ['core', 'options', 'kit'], 'aws, what endpoints on AWS share, imports core, options and kit.', [
      '@aws-sdk/credential-providers',
      '@smithy/node-http-handler',
    ]),
    {
      name: 'aws-importers',
      severity: 'error',
      comment: 'Only endpoints use what those on AWS share.',
      from: { path: '^src/', pathNot: room('(aws|endpoints)') },
      to: { path: room('aws') },
    },
    {
      name: 'endpoints-imports',
      severity: 'error',
      comment: 'An endpoint imports core, options, codec, kit and aws.',
      from: { path: '^src/endpoints/' },
      to: { path: '^src/', pathNot: room('(endpoints|core|options|codec|kit|aws)') },
    },
    {
      name: 'endpoints-apart',
      severity: 'error',
      comment: 'An endpoint never imports another one.',
      from: { path: '^src/endpoints/([^/]+)/' },
      to: { path: '^src/endpoints/', pathNot: '^src/endpoints/$1/' },
    },
    {
      name: 'endpoints-registry',
      severity: 'error',
      comment: 'The registry knows an endpoint by its index alone.',
      from: { path: '^src/endpoints/registry\\.ts$' },
      to: { path: '^src/endpoints/[^/]+/', pathNot: '^src/endpoints/[^/]+/index\\.ts$' },
    },
    {
      name: 'vendor-in-client',
      severity: 'error',
      comment:
        "Only client.ts of an endpoint and its parts (client-*.ts), or a client of its own for a second service (lease-client.ts), touches a vendor's package (types and protobuf's wire format apart).",
      from: { path: '^src/endpoints/', pathNot: '^src/endpoints/[^/]+/(lease-client|client|client-[a-z]+)\\.ts$' },
      to: { path: npm, pathNot: `${npm}protobufjs/`, dependencyTypesNot: ['type-only', 'core'] },
    },
    {
      name: 'index-imports',
      severity: 'error',
      comment: 'The library is without the command line.',
      from: { path: '^src/index\\.ts$' },
      to: { path: [room('cli'), `${npm}commander/`] },
    },
    {
      name: 'no-one-imports-cli',
      severity: 'error',
      comment: 'Nothing imports the command line.',
      from: { path: '^src/', pathNot: room('cli') },
      to: { path: room('cli') },
    },
    {
      name: 'no-cycles',
      severity: 'error',
      comment: 'No circles, of types and of dynamic imports neither.',
      from: { path: '^src/' },
      to: { circular: true },
    },
    {
      name: 'src-only',
      severity: 'error',
      comment: 'src imports nothing of test, scripts or dist.',
      from: { path: '^src/' },
      to: { path: '^(test|scripts|dist|bin)/' },
    },
    {
      name: 'declared-packages',
      severity: 'error',
      comment: 'A package must be among the dependencies of package.json.',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown', 'unknown', 'undetermined'] },
    },
    {
      name: 'resolvable',
      severity: 'error',
      comment: 'What is imported must exist.',
      from: { path: '^src/' },
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: npm },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.d.ts'],
    },
  },
}
