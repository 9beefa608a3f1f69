/** The table of layers: it says which may import which. A violation prints the comment of its rule. */
const npm = 'node_modules/'
const layer = (name) => `^src/${name}/`
/** `from` may import nothing of src but itself and `layers`, and of node_modules only `packages`. */
function only(name, layers, comment, packages = []) {
  const allowed = [name, ...layers].map((each) => (each.includes('.') ? `^src/${each}$` : layer(each)))
  return [
    {
      name: `${name}-imports`,
      severity: 'error',
      comment,
      from: { path: layer(name) },
      to: { path: '^src/', pathNot: allowed },
    },
    {
      name: `${name}-packages`,
      severity: 'error',
      comment: `${name} uses no package${packages.length === 0 ? '' : ` but ${packages.join(', ')}`}.`,
      from: { path: layer(name) },
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
      from: { path: layer('options') },
      to: { path: '^src/core/contract\\.ts$', dependencyTypesNot: ['type-only'] },
    },
    ...only('codec', ['core', 'kit'], 'codec imports core and kit.'),
    ...only('spool', ['core', 'kit'], 'spool imports core and kit.'),
    ...only('state', ['core', 'kit'], 'state imports core and kit.'),
    ...only(
      'plan',
      ['core', 'options', 'codec', 'kit', 'spool', 'state', 'endpoints'],
      'plan puts the layers together, without the command line.',
    ),
    {
      name: 'plan-importers',
      severity: 'error',
      comment: 'Only index.ts and cli run a plan.',
      from: { path: '^src/', pathNot: [layer('(plan|cli)'), '^src/index\\.ts$'] },
      to: { path: layer('plan') },
    },
    ...only('aws', ['core', 'options', 'kit'], 'aws, what endpoints on AWS share, imports core, options and kit.', [
      '@aws-sdk/credential-providers',
      '@smithy/node-http-handler',
    ]),
    {
      name: 'aws-importers',
      severity: 'error',
      comment: 'Only endpoints use what those on AWS share.',
      from: { path: '^src/', pathNot: layer('(aws|endpoints)') },
      to: { path: layer('aws') },
    },
    {
      name: 'endpoints-imports',
      severity: 'error',
      comment: 'An endpoint imports core, options, codec, kit and aws.',
      from: { path: '^src/endpoints/' },
      to: { path: '^src/', pathNot: layer('(endpoints|core|options|codec|kit|aws)') },
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
      to: { path: [layer('cli'), `${npm}commander/`] },
    },
    {
      name: 'no-one-imports-cli',
      severity: 'error',
      comment: 'Nothing imports the command line.',
      from: { path: '^src/', pathNot: layer('cli') },
      to: { path: layer('cli') },
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
      comment: 'An imported file must exist.',
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
